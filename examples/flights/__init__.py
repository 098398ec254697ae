"""A real year of flights: train two versions, replay the year, send what became true."""

"""What a person runs or imports: the command line, the launcher, the client."""

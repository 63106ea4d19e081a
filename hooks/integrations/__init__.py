"""Other people's training loops and loggers, each in a module of its own that is imported only when used."""

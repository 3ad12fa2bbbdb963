"""The history of the tables, run to its end when a database is opened."""

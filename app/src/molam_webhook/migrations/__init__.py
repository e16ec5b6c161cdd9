"""The schema's revisions, and `grants.sql`: who may do what with it."""

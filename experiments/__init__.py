"""The experiments of the book: declared grids of recipes, their runner, the tables that they made."""

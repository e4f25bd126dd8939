"""The experiments of part IV: declared grids of recipes, their runner, the tables that they made."""

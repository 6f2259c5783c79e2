"""Reading data sets, splitting them, and the order in which training sees them."""

"""`tega-check`: look at a data folder whose node is stopped, repair it, export what is in it."""

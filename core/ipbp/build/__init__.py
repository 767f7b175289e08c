"""How new objects come to be: the compile commands of the user, replayed into a folder of our own."""

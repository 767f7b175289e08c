"""The link graph: what an object file says, without saying it in the words of an object format."""

"""What a request asks for, as its path and its body tell."""

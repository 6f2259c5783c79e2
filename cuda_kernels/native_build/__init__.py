"""How the native library is built: compilers from Python packages; one build for every GPU and torch; no GPU needed."""

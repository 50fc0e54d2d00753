"""What passes between a gateway and its picker: ext_proc messages, bodies, answers."""

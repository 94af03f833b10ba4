"""Load pythae's model folders."""

"""Plugins for isoprobe, as a third party would write them."""

"""Models as other people write and save them, with right answers found without isoprobe."""

"""Run analyses: settle what was asked, pass over the data, merge shards, score new rows."""

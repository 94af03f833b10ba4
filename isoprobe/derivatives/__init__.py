"""Take a decoder's derivatives: metric tensor, tangents, exact and sampled pullback."""

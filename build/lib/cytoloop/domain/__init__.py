"""What cytoloop knows: types, image processing, scores, metrics, decisions. No machinery."""

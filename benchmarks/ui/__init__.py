"""What the pages cost in a browser: first plots, live updates, and TensorBoard on the same data beside them."""

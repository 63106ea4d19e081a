"""What is seen of the training loop itself in the steps that are looked at: losses, call order, batches, modes.

Nothing here writes a tensor, draws a random number or waits for a device. What has to be replaced in torch to see it is
replaced when such a step begins and put back when it ends (`order`); losses are read from the autograd graph that
is there anyway (`graph`), so compiled and scripted code runs as it is.
"""

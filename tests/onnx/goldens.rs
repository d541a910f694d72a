//! Every graph of the golden models.

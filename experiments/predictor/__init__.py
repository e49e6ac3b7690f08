"""Prophet: small transformers that predict a router's experts from the layers and tokens before, one per source domain, beside baselines."""

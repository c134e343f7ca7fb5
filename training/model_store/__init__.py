"""The BentoML model store: releases as services find them, and which of them is served."""

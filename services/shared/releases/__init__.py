"""How a replica follows what the learner decides: releases taken live, orders carried out, both acknowledged."""

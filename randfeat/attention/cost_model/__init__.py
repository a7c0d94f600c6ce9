"""How long linear and exact attention take, predicted from shapes: rates, their measurement, the faster method."""

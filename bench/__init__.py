"""What Unbroken costs, beside what people would use instead. ``python -m bench --help`` has the options.

``measure`` counts CPU, ``server`` answers every contestant, ``load`` asks as a raw client does. One module a side:
``relay``, ``client``, ``recovery``, ``startup``, ``growth``. ``report`` writes the page and ``plot`` its figures.
"""

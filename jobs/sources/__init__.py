"""Sources: what a spec's input stands for, as a stream of items in a fixed order.

Others use `items.items`; `tables` and `columns` read the rows of tables for labelled examples, too.
"""

"""
Brokers: how bytes get from process to process. One module per broker, none knows another.
"""

"""
Django's pages over ASGI, at the price of WSGI: one hop to a thread for a whole page.

``PageHandler`` is what stands in the place of Django's own ``ASGIHandler``. ``choice`` says which
requests are for an asynchronous view, ``sync`` and ``aio`` are the handlers of the two kinds,
``handler`` what they share; ``body`` reads what a client sends, ``answers`` and ``streams`` send
what a view returns, ``hops`` get functions into threads. Which threads there are is known to
``threads``; consumers, routes of sockets and static files live elsewhere.
"""

from fairway.pages.choice import PageHandler

__all__ = ["PageHandler"]

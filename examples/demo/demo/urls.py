"""
Pages and consumers, routed side by side; a path may hold one of each.
"""

from chat.consumers import RoomConsumer
from chat.converters import RoomConverter
from chat.views import room, rooms
from counter.consumers import CounterConsumer
from counter.views import counter, increment
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path, register_converter
from django.views.generic import TemplateView
from echo.consumers import EchoConsumer

register_converter(RoomConverter, "room")

urlpatterns = [
    path("", TemplateView.as_view(template_name="home.html"), name="home"),
    path("chat/", TemplateView.as_view(template_name="echo.html"), name="echo"),
    path("chat/", EchoConsumer.as_asgi()),
    path("counter/", counter, name="counter"),
    path("counter/", CounterConsumer.as_asgi()),
    path("increment/", increment, name="increment"),
    path("rooms/", rooms, name="rooms"),
    path("rooms/<room:slug>/", room, name="room"),
    path("rooms/<room:slug>/", RoomConsumer.as_asgi()),
    path("login/", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
]

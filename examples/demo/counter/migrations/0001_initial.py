"""
Make the counter's table with its one row.
"""

from django.db import migrations, models


def make_counter(apps, schema_editor):
    """
    Begin at 0.
    """
    apps.get_model("counter", "Counter").objects.create(pk=1)


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Counter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("value", models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.RunPython(make_counter, migrations.RunPython.noop),
    ]

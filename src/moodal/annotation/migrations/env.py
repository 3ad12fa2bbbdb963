"""What Alembic runs: the steps, on the connection that ``open_database`` hands over, inside its transaction."""

from alembic import context

from moodal.annotation.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a table; Alembic copies it
)
with context.begin_transaction():
    context.run_migrations()

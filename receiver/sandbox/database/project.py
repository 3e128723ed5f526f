"""A Supabase project's database: Supabase's own objects, and the company's tables.

The pieces are SQL files beside this module. The project's own migrations are applied the way an
operator applies them: whole files, in the order of their names, as the owner and not as superuser.
"""

from pathlib import Path

import psycopg
from psycopg import sql

from receiver.sandbox.database.postgres import Database, PostgresServer

SUPABASE_SQL = Path(__file__).with_name("supabase.sql")
COMPANY_SQL = Path(__file__).with_name("company.sql")
MIGRATIONS = Path(__file__).parents[3] / "sql"
TEMPLATE = "supabase_template"


def create_project(server: PostgresServer, name: str) -> Database:
    """Make a database with supabase.sql and company.sql, copied from a template made once."""
    template = server.template(TEMPLATE, _prepare)
    database = server.create_database(name, template=template.name)
    with server.connect(name) as connection:
        # Rights on a database itself are not copied from its template.
        connection.execute(
            sql.SQL("grant create, temporary on database {} to project_owner").format(
                sql.Identifier(name)
            )
        )
    return database


def apply_migrations(database: Database, directory: Path = MIGRATIONS) -> list[Path]:
    """Apply every `NNNN_*.sql` there as project_owner and return them in the order applied."""
    files = sorted(directory.glob("[0-9]*.sql"))
    for path in files:
        apply_file(database.owner_dsn, path)
    return files


def apply_file(dsn: str, path: Path) -> None:
    """Run a whole SQL file as psql would: several statements, and its own begin and commit.

    Raises psycopg.Error with the file's name as a note.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        try:
            # Bytes, and no parameters: the file goes to the server as it stands.
            connection.execute(path.read_bytes())
        except psycopg.Error as exc:
            exc.add_note(f"while running {path.name}")
            raise


def _prepare(database: Database) -> None:
    apply_file(database.superuser_dsn, SUPABASE_SQL)
    apply_file(database.owner_dsn, COMPANY_SQL)

"""The schema, as small named steps; each is applied once, in one transaction, and never edited."""

from __future__ import annotations

from sqlite_utils import Database

from cytoloop.adapters.store.connection import Migration


def _statements(*sql: str) -> Migration:
    def migrate(db: Database) -> None:
        for statement in sql:
            db.execute(statement)

    return migrate


STORE: dict[str, Migration] = {
    "0001_images_and_items": _statements(
        """CREATE TABLE assays (
            name TEXT PRIMARY KEY, document TEXT NOT NULL, digest TEXT NOT NULL,
            project_id INTEGER, backend_id INTEGER, webhook_id INTEGER,
            active_version TEXT, reconciled_until TEXT)""",
        """CREATE TABLE groups (
            assay TEXT NOT NULL, group_id TEXT NOT NULL, split TEXT NOT NULL, first_seen TEXT NOT NULL,
            PRIMARY KEY (assay, group_id)) WITHOUT ROWID""",
        """CREATE TABLE images (
            assay TEXT NOT NULL, image_id TEXT NOT NULL, image_key TEXT NOT NULL, files TEXT NOT NULL,
            height INTEGER NOT NULL, width INTEGER NOT NULL, plate TEXT NOT NULL, well TEXT NOT NULL,
            field TEXT NOT NULL, treatment TEXT NOT NULL, group_id TEXT NOT NULL, added_at TEXT NOT NULL,
            PRIMARY KEY (assay, image_id),
            FOREIGN KEY (assay, group_id) REFERENCES groups (assay, group_id))""",
        """CREATE TABLE items (
            assay TEXT NOT NULL, image_id TEXT NOT NULL, tile INTEGER NOT NULL, task_id INTEGER,
            PRIMARY KEY (assay, image_id, tile),
            FOREIGN KEY (assay, image_id) REFERENCES images (assay, image_id))""",
        "CREATE UNIQUE INDEX items_by_task ON items (assay, task_id) WHERE task_id IS NOT NULL",
        """CREATE TABLE display_ranges (
            assay TEXT NOT NULL, plate TEXT NOT NULL, channel TEXT NOT NULL,
            low REAL NOT NULL, high REAL NOT NULL, PRIMARY KEY (assay, plate, channel))""",
        """CREATE TABLE weak_labels (
            assay TEXT NOT NULL, image_id TEXT NOT NULL, image_key TEXT NOT NULL, recipe TEXT NOT NULL,
            recipe_digest TEXT NOT NULL, code_version TEXT NOT NULL, mask TEXT NOT NULL,
            created_at TEXT NOT NULL,
            PRIMARY KEY (assay, image_id, recipe_digest, code_version))""",
    ),
    "0002_corrections": _statements(
        # Append-only: a change is a new row. ``deleted`` rows are tombstones of an annotation.
        """CREATE TABLE corrections (
            id INTEGER PRIMARY KEY, assay TEXT NOT NULL, image_id TEXT NOT NULL, tile INTEGER NOT NULL,
            revision INTEGER NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('submitted', 'skipped', 'deleted')),
            annotation_id INTEGER NOT NULL, task_id INTEGER NOT NULL, annotated_at TEXT NOT NULL,
            expert TEXT NOT NULL, mask TEXT, parent_version TEXT, lead_time_s REAL,
            conflict_pixels INTEGER NOT NULL DEFAULT 0, origins TEXT NOT NULL DEFAULT '{}',
            received_at TEXT NOT NULL,
            UNIQUE (assay, annotation_id, annotated_at, kind),
            FOREIGN KEY (assay, image_id, tile) REFERENCES items (assay, image_id, tile),
            CHECK ((kind = 'submitted') = (mask IS NOT NULL)))""",
        "CREATE INDEX corrections_by_item ON corrections (assay, image_id, tile)",
        """CREATE TABLE doubts (
            id INTEGER PRIMARY KEY, assay TEXT, source TEXT NOT NULL, reference TEXT NOT NULL,
            message TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE (source, reference, message))""",
        "CREATE TABLE inbox_progress (id INTEGER PRIMARY KEY CHECK (id = 1), last_event INTEGER NOT NULL)",
        "INSERT INTO inbox_progress VALUES (1, 0)",
    ),
    "0003_models_and_cycles": _statements(
        """CREATE TABLE models (
            version TEXT PRIMARY KEY, assay TEXT NOT NULL, method TEXT NOT NULL, status TEXT NOT NULL,
            digest TEXT NOT NULL, parent TEXT, snapshot TEXT, config TEXT NOT NULL, metrics TEXT NOT NULL,
            created_at TEXT NOT NULL)""",
        """CREATE TABLE snapshots (
            digest TEXT PRIMARY KEY, assay TEXT NOT NULL, rows TEXT NOT NULL, created_at TEXT NOT NULL)""",
        """CREATE TABLE cycles (
            id TEXT PRIMARY KEY, assay TEXT NOT NULL, state TEXT NOT NULL, step TEXT NOT NULL,
            progress REAL NOT NULL DEFAULT 0, asked_by TEXT NOT NULL, created_at TEXT NOT NULL,
            started_at TEXT, finished_at TEXT, outcome TEXT, reason TEXT, report TEXT)""",
        """CREATE TABLE contests (
            id INTEGER PRIMARY KEY, cycle_id TEXT, assay TEXT NOT NULL, challenger TEXT NOT NULL,
            active TEXT NOT NULL, promoted INTEGER NOT NULL, reason TEXT NOT NULL, document TEXT NOT NULL,
            created_at TEXT NOT NULL)""",
        """CREATE TABLE publications (
            id INTEGER PRIMARY KEY, assay TEXT NOT NULL, version TEXT NOT NULL, previous TEXT,
            step TEXT NOT NULL, window TEXT NOT NULL, started_at TEXT NOT NULL, finished_at TEXT)""",
        """CREATE TABLE batches (
            assay TEXT NOT NULL, queue TEXT NOT NULL, version TEXT NOT NULL, items TEXT NOT NULL,
            view_id INTEGER, created_at TEXT NOT NULL, PRIMARY KEY (assay, queue))""",
    ),
    "0004_weak_confidence": _statements(
        # NULL: one teacher, sure everywhere.
        "ALTER TABLE weak_labels ADD COLUMN confidence TEXT",
    ),
    "0005_queues_and_leases": _statements(
        """CREATE TABLE queues (
            assay TEXT NOT NULL, queue TEXT NOT NULL, document TEXT NOT NULL, changed_at TEXT NOT NULL,
            PRIMARY KEY (assay, queue)) WITHOUT ROWID""",
        """CREATE TABLE leases (
            id INTEGER PRIMARY KEY, assay TEXT NOT NULL, queue TEXT NOT NULL, expert TEXT NOT NULL,
            image_id TEXT NOT NULL, tile INTEGER NOT NULL, seat INTEGER NOT NULL CHECK (seat >= 0),
            role TEXT NOT NULL, canvas TEXT NOT NULL, strategy TEXT NOT NULL, version TEXT NOT NULL,
            score REAL NOT NULL, claimed_at TEXT NOT NULL, expires_at TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'held'
                CHECK (state IN ('held', 'done', 'skipped', 'released', 'expired')),
            ended_at TEXT, CHECK ((state = 'held') = (ended_at IS NULL)),
            FOREIGN KEY (assay, image_id, tile) REFERENCES items (assay, image_id, tile))""",
        # The promise itself: SQLite refuses a second hand-out, whatever the code above it does.
        """CREATE UNIQUE INDEX leases_one_a_seat ON leases (assay, image_id, tile, seat)
            WHERE state IN ('held', 'done')""",
        """CREATE UNIQUE INDEX leases_once_an_expert ON leases (assay, image_id, tile, expert)
            WHERE state = 'held'""",
        "CREATE INDEX leases_by_item ON leases (assay, image_id, tile)",
        "CREATE INDEX leases_held ON leases (assay, queue, expert) WHERE state = 'held'",
        "CREATE INDEX leases_by_end ON leases (expires_at) WHERE state = 'held'",
        """CREATE TABLE item_roles (
            assay TEXT NOT NULL, image_id TEXT NOT NULL, tile INTEGER NOT NULL, role TEXT NOT NULL,
            canvas TEXT NOT NULL, readers INTEGER NOT NULL CHECK (readers >= 1), queue TEXT NOT NULL,
            strategy TEXT NOT NULL, version TEXT NOT NULL, given_at TEXT NOT NULL,
            taken INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (assay, image_id, tile),
            FOREIGN KEY (assay, image_id, tile) REFERENCES items (assay, image_id, tile)) WITHOUT ROWID""",
        # Items that some have read or hold, and more are to read: few, however many were handed out.
        """CREATE INDEX item_roles_short_of_readers ON item_roles (assay, queue, given_at)
            WHERE taken > 0 AND taken < readers""",
    ),
    "0006_reviews": _statements(
        # Corrections worth a second look; whether one is still open is read from corrections and leases.
        """CREATE TABLE reviews (
            id INTEGER PRIMARY KEY, assay TEXT NOT NULL, image_id TEXT NOT NULL, tile INTEGER NOT NULL,
            expert TEXT NOT NULL, mask TEXT NOT NULL, score REAL NOT NULL, reason TEXT NOT NULL,
            created_at TEXT NOT NULL, dismissed_by TEXT, dismissed_at TEXT,
            UNIQUE (assay, image_id, tile, mask),
            FOREIGN KEY (assay, image_id, tile) REFERENCES items (assay, image_id, tile),
            CHECK ((dismissed_by IS NULL) = (dismissed_at IS NULL)))""",
    ),
    "0007_tabs_and_timings": _statements(
        # In the place of "batches", which knew one tab a queue.
        "DROP TABLE batches",
        """CREATE TABLE tabs (
            assay TEXT NOT NULL, queue TEXT NOT NULL, expert TEXT NOT NULL, view_id INTEGER NOT NULL,
            items TEXT NOT NULL, set_at TEXT NOT NULL, PRIMARY KEY (assay, queue, expert)) WITHOUT ROWID""",
        """CREATE TABLE timings (
            assay TEXT NOT NULL, annotation_id INTEGER NOT NULL, expert TEXT NOT NULL,
            expected_minutes REAL NOT NULL, lead_time_s REAL NOT NULL,
            PRIMARY KEY (assay, annotation_id)) WITHOUT ROWID""",
    ),
    "0008_asked_for": _statements(
        # A cycle trains, or brings a version that exists into force; why it was asked for, and who called it off.
        "ALTER TABLE cycles ADD COLUMN kind TEXT NOT NULL DEFAULT 'train'",
        "ALTER TABLE cycles ADD COLUMN target TEXT",
        "ALTER TABLE cycles ADD COLUMN why TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE cycles ADD COLUMN cancelled_by TEXT",
    ),
    "0009_looked_at": _statements(
        # When Label Studio was last asked for what no event told, and answered to the end.
        "ALTER TABLE assays ADD COLUMN looked_at TEXT",
    ),
    "0010_planes_and_pixel_sizes": _statements(
        # As the microscope wrote them down; what was imported before keeps its silence.
        "ALTER TABLE images ADD COLUMN z_plane TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE images ADD COLUMN pixel_size_um REAL",
    ),
    "0011_imported_masks": _statements(
        # Append-only: the latest row of an image is the mask that is shown.
        """CREATE TABLE imported_masks (
            id INTEGER PRIMARY KEY, assay TEXT NOT NULL, image_id TEXT NOT NULL, version TEXT NOT NULL,
            mask TEXT NOT NULL, tiles TEXT NOT NULL, source TEXT NOT NULL, imported_at TEXT NOT NULL,
            FOREIGN KEY (assay, image_id) REFERENCES images (assay, image_id))""",
        "CREATE INDEX imported_by_image ON imported_masks (assay, image_id, id)",
    ),
}

PREDICTIONS: dict[str, Migration] = {
    "0001_predictions": _statements(
        """CREATE TABLE predictions (
            assay TEXT NOT NULL, version TEXT NOT NULL, image_id TEXT NOT NULL, tile INTEGER NOT NULL,
            score REAL NOT NULL, confidence REAL NOT NULL, reason TEXT NOT NULL, result TEXT NOT NULL,
            created_at TEXT NOT NULL, PRIMARY KEY (assay, version, image_id, tile)) WITHOUT ROWID""",
        "CREATE INDEX predictions_by_score ON predictions (assay, version, confidence)",
    ),
    "0002_scores": _statements(
        # The scores of a ranking lie in a table of their own, scores_<id>, made by scores.py: a million
        # rows are then written before their indexes, and dropped without touching those of another version.
        """CREATE TABLE rankings (
            id INTEGER PRIMARY KEY AUTOINCREMENT, assay TEXT NOT NULL, version TEXT NOT NULL,
            strategy TEXT NOT NULL, made_at TEXT NOT NULL, is_ready INTEGER NOT NULL DEFAULT 0)""",
        """CREATE UNIQUE INDEX rankings_in_use ON rankings (assay, version, strategy)
            WHERE is_ready""",
    ),
}

INBOX: dict[str, Migration] = {
    "0001_events": _statements(
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT, received_at TEXT NOT NULL, body BLOB NOT NULL)""",
    ),
}

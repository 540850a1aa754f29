"""What can go wrong, as one tree, so that each edge translates it once.

A message says where, what was got and what was expected:
``task 41: mask (512, 640), image (640, 512)``.
"""


class CytoloopError(Exception):
    """Anything cytoloop expects to happen; other exceptions are our bugs."""

    exit_code = 1
    http_status = 500


class InputError(CytoloopError):
    """The caller can fix it."""

    http_status = 400


class ShapeError(InputError):
    """An array has not the shape or dtype that was expected."""


class MalformedRle(InputError):
    """Bytes that claim to be a brush RLE are not one."""


class UnknownImage(InputError):
    """An image, tile or task that the store has never seen."""

    http_status = 404


class UnknownVersion(InputError):
    """A model version that the registry does not hold."""

    http_status = 404


class UnknownLease(InputError):
    """A lease that was never given."""

    http_status = 404


class UnsupportedLabelConfig(InputError):
    """A label or control that the assay does not know."""


class PlateError(InputError):
    """A folder of images that cannot be read as a plate."""


class ImageUnreadable(InputError):
    """An image file that is missing, truncated, or not of a kind the assay expects."""


class StateError(CytoloopError):
    """Right request, wrong moment."""

    http_status = 409


class InvalidTransition(StateError):
    """A state was asked to change into one it cannot reach; the message names the valid ones."""


class LeaseEnded(StateError):
    """A lease that was given back, used up or ran out; the message says which, and when."""


class NotReadyYet(StateError):
    """Being computed; ask again."""

    http_status = 503


class AccessDenied(CytoloopError):
    """No credentials, or wrong ones."""

    http_status = 401


class Forbidden(CytoloopError):
    """Known, but this role may not do it."""

    http_status = 403


class ForeignLease(Forbidden):
    """A lease that another expert holds."""


class ExternalError(CytoloopError):
    """Another system failed."""

    http_status = 503


class LabelStudioUnavailable(ExternalError):
    """Label Studio does not answer, or not as it should."""


class LabelStudioRefused(ExternalError):
    """Label Studio answered, and said no (wrong token, unknown project, invalid document)."""


class StorageFull(CytoloopError):
    """No room on the home's disk: what was asked was not stored."""

    http_status = 507


class StorageReadOnly(CytoloopError):
    """The home's disk takes nothing: what was asked was not stored."""

    http_status = 503


class ConfigError(CytoloopError):
    """Wrong from the start: environment, assay or queue files, command line."""

    exit_code = 2

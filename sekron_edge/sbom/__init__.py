"""Bills of materials: the software that something was made with, its licences, in the form of CycloneDX 1.6.

Requirements kept here: the same contents give the same bytes; what is said of a package is what its metadata says.
"""

from sekron_edge.sbom._document import Needs, graph, written
from sekron_edge.sbom._packages import Package, installed

__all__ = ["Needs", "Package", "graph", "installed", "written"]

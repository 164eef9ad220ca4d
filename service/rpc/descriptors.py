"""The descriptors of our messages, apart from others' in the same process.

Clients of the protocol bring messages of the same names, and one pool holds a name once. Who has such a client and this
package in one process, as a test does, would otherwise get an error from whichever is imported second.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()

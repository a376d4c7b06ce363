// Identifiers, resources, byte counts and errors are part of this API: users import one module.
@_exported public import MobulaCore

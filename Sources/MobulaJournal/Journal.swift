internal import GRDB
internal import MobulaCore

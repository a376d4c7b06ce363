enum MobulaTestsPlaceholder {}

consul {}

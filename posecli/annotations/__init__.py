"""The one place where COCO files are read: annotations, boxes and results, checked and brought into one form.

`eval`, `train` and `boxes:` see people of these modules only, so that a file means the same to all of them. What a
labelling tool wrote in another way is repaired where its meaning is plain, and told in one line of a kind with its
count; what is not ends in a DataError that names the file and the entry.
"""

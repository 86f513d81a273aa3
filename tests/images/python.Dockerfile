# Stands in for the official Python image: Debian's Python under that one's names.
FROM stand-in/debian
RUN ln -s /usr/bin/python3 /usr/local/bin/python3 && ln -s /usr/bin/python3 /usr/local/bin/python
CMD ["python3"]

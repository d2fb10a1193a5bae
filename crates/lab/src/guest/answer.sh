#!/bin/busybox sh
# What a connection to port 7 gets.
hostname

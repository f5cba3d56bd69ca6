"""What a running group says of itself: its guards asked, their answers put together.

ask_guards    every guard of a group, over SSH at once
group_status  their answers as one view                 pure
failures      failure bundles of several hosts as one   pure
"""

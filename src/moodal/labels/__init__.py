"""From people's votes to a labelled data set: agreement, consensus, balance, statistics, export."""
